"""Media in JSON and back: nothing is lost, nothing else is touched."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from base64 import b64decode, b64encode
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import PIL.Image
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipemill import errors
from pipemill.codec import Array, Audio, Image, Video, decode, encoder, read_array, write_image
from pipemill.codec.arrays import DTYPES
from pipemill.protocol import decode_arguments, decode_result, dumps, encode_arguments, encode_success

#: Every number format that NumPy has a name for.
NUMPY_FORMATS = [name for name in DTYPES if name != "bfloat16"]
#: Every mode that images are sent in.
MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "I", "I;16", "F", "CMYK", "YCbCr"]


def there_and_back(value: Any) -> Any:
    """Write a value as JSON and read it, as a job's answer travels."""
    return decode(orjson.loads(dumps(value, encoder())))


def same(left: Any, right: Any) -> bool:
    """Whether two arrays are equal to the last bit, in shape and format too."""
    equal = left.dtype.newbyteorder("=") == right.dtype.newbyteorder("=") and left.shape == right.shape
    return bool(equal) and left.astype(left.dtype.newbyteorder("=")).tobytes() == right.tobytes()


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """An array of any format, shape, byte order and layout, with any bits in it."""
    dtype = np.dtype(DTYPES[draw(st.sampled_from(NUMPY_FORMATS))])
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    size = math.prod(shape) * dtype.itemsize
    data = draw(st.binary(min_size=size, max_size=size))
    if dtype.kind == "b":
        data = bytes(each & 1 for each in data)
    array = np.frombuffer(data, dtype).reshape(shape)
    if draw(st.booleans()):
        array = array.byteswap().view(array.dtype.newbyteorder())
    layouts = [lambda a: a, lambda a: a.T, lambda a: a[::-1] if a.ndim else a, lambda a: a[..., ::2] if a.ndim else a]
    chosen: np.ndarray[Any, Any] = draw(st.sampled_from(layouts))(array)
    return chosen


@settings(deadline=None)  # the first example loads libraries
@given(arrays())
def test_arrays_lose_nothing(array: np.ndarray[Any, Any]) -> None:
    """Every format, shape, byte order and layout comes back to the last bit, and can be written to."""
    back = there_and_back({"a": [array]})["a"][0]
    assert same(array, back)
    assert back.flags.writeable
    assert back.dtype.isnative


@pytest.mark.parametrize("bits", [0x7FC00001, 0xFFC12345, 0x7F800000, 0x80000000])
def test_nan_keeps_its_payload(bits: int) -> None:
    """Which NaN it was, and which zero, is kept."""
    for order in "<>":
        array = np.array([bits], "<u4").view("<f4").astype(f"{order}f4")
        array = np.array([bits], f"{order}u4").view(f"{order}f4")
        assert int(there_and_back([array])[0].view("<u4")[0]) == bits


@given(st.floats(width=32), st.floats(width=16), st.integers(-(2**63), 2**64 - 1), st.booleans())
@example(0.1, 0.1, 2**64 - 1, True)  # noqa: FBT003  # hypothesis takes examples by position
def test_numpy_scalars_are_numbers_of_exactly_their_value(single: float, half: float, whole: int, flag: bool) -> None:  # noqa: FBT001  # as above
    """A scalar is a plain JSON number with its exact value, no array."""
    integer = np.uint64(whole) if whole >= 0 else np.int64(whole)
    answer = [np.float32(single), np.float16(half), np.float64(single), integer, np.bool_(flag)]
    result = decode_result("a", encode_success("a", answer, default=encoder()))
    assert result is not None
    assert repr(result.value) == repr([float(np.float32(single)), float(np.float16(half)), single, whole, flag])


def test_numpy_1_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy 1.26, which is allowed, has no ``numpy.bool``."""
    monkeypatch.delattr(np, "bool")
    assert orjson.loads(dumps([np.float32(0.5), np.bool_(1)], encoder())) == [0.5, True]


def test_a_view_is_an_array_of_bool() -> None:
    """Whatever bytes other than 0 stand for true in memory, they arrive as true."""
    assert there_and_back(np.array([0, 1, 2, 255], "uint8").view("bool")).tolist() == [False, True, True, True]


def test_scalars_without_a_number_of_their_own() -> None:
    """A complex scalar is an array without dimensions; what has more digits than JSON is refused."""
    assert same(there_and_back([np.complex64(1 + 2j)])[0], np.array(1 + 2j, "complex64"))
    with pytest.raises(TypeError, match="float"):
        dumps([np.longdouble(1) / 3], encoder())


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.array(["a"]), "astype"),
        (np.array([object()]), "astype"),
        (np.array(["2020-01-01"], "datetime64[D]"), "astype"),
        (np.zeros((1,) * 9), "reshape"),
        (np.ma.masked_array([1.0], [True]), "filled"),
    ],
)
def test_arrays_without_a_form_are_refused(array: Any, told: str) -> None:
    """What would lose something is refused, with the way out."""
    with pytest.raises(TypeError, match=told):
        dumps([array], encoder())


def test_tensors_are_arrays() -> None:
    """Any strided tensor comes back as an array: with gradients, without layout, conjugated, or of one element."""
    torch = pytest.importorskip("torch")
    for tensor in (
        torch.arange(6.0).reshape(2, 3).T,
        torch.ones(2, requires_grad=True),
        torch.tensor(3),
        torch.tensor([True, False]),
        torch.tensor([1 + 2j]).conj(),
        torch.nn.Parameter(torch.ones(1)),
        torch.zeros(0, 2, dtype=torch.float16),
    ):
        assert same(there_and_back([tensor])[0], tensor.detach().resolve_conj().numpy())
    with pytest.raises(TypeError, match="to_dense"):
        dumps([torch.eye(2).to_sparse()], encoder())


@settings(deadline=None)  # the first example loads torch
@given(st.lists(st.integers(0, 2**16 - 1), max_size=5))
def test_bfloat16_is_float32_of_the_same_value(bits: list[int]) -> None:
    """The bits of a bfloat16 are the upper half of a float32, NaN and all."""
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(bits, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    (form,) = orjson.loads(dumps([tensor], encoder()))
    assert (form["dtype"], form["shape"]) == ("bfloat16", [len(bits)])
    back = decode([form])[0]
    assert back.dtype == np.float32
    assert (back.view(np.uint32) >> 16).tolist() == bits


@st.composite
def images(draw: st.DrawFn) -> PIL.Image.Image:
    """An image of any mode and any pixels."""
    mode = draw(st.sampled_from(MODES))
    size = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    length = len(PIL.Image.new(mode, size).tobytes())
    image = PIL.Image.frombytes(mode, size, draw(st.binary(min_size=length, max_size=length)))
    if mode in {"P", "PA"}:
        colours = draw(st.integers(1, 256))
        image.putpalette(draw(st.binary(min_size=3 * colours, max_size=3 * colours)))
    if mode == "P" and draw(st.booleans()):
        image.info["transparency"] = draw(st.integers(0, 255))
    return image


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(images())
def test_images_lose_nothing(image: PIL.Image.Image) -> None:
    """Every mode comes back with its pixels, and as a plain image."""
    back = there_and_back({"mask": image})["mask"]
    assert type(back) is PIL.Image.Image
    assert (back.mode, back.size) == (image.mode, image.size)
    assert back.tobytes() == image.tobytes()
    assert back.convert("RGBA").tobytes() == image.convert("RGBA").tobytes() if image.mode == "P" else True


@pytest.mark.parametrize("colours", [0, 1, 2, 5, 17, 256])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_index_beyond_its_palette_is_kept(colours: int, mode: str) -> None:
    """A mask of class numbers with few colours, or none, keeps its numbers and its looks."""
    image = PIL.Image.frombytes("P", (256, 1), bytes(range(256)))
    if colours:
        image.putpalette(bytes(range(colours)) * len(mode), mode)
    for part in (image, image.crop((0, 0, 3, 1))):
        back = there_and_back([part])[0]
        assert (back.mode, back.tobytes()) == ("P", part.tobytes())
        assert back.convert("RGBA").tobytes() == part.convert("RGBA").tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "I;16", "I", "F", "CMYK"])
def test_an_image_equals_the_one_that_was_sent(mode: str) -> None:
    """Pillow's own comparison, which looks at notes as well, sees no difference."""
    image = PIL.Image.new(mode, (3, 2))
    assert there_and_back([image]) == [image]


@pytest.mark.parametrize(("mode", "kind"), [("L", b"\x89PNG"), ("P", b"\x89PNG"), ("F", b"II*\x00"), ("I", b"II*\x00")])
def test_images_are_png_unless_it_cant_hold_them(mode: str, kind: bytes) -> None:
    """Other languages get PNG wherever it is exact."""
    form = encoder()(PIL.Image.new(mode, (2, 2)))
    assert b64decode(form["$image"]).startswith(kind)


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_which_way_up_an_image_is_isnt_lost(mode: str) -> None:
    """A photograph that pipelines would turn is turned alike after its journey."""
    from PIL import ImageOps  # noqa: PLC0415  # only here

    image = PIL.Image.new(mode, (3, 2))
    image.putpixel((0, 0), (255,) * len(mode))
    image.getexif()[0x0112] = 6
    back = there_and_back([image])[0]
    assert ImageOps.exif_transpose(back).tobytes() == ImageOps.exif_transpose(image).tobytes()
    assert ImageOps.exif_transpose(back).size == (2, 3)


@pytest.mark.parametrize("image", [PIL.Image.new("RGB", (0, 3)), PIL.Image.new("HSV", (1, 1))])
def test_images_without_a_form_are_refused(image: PIL.Image.Image) -> None:
    """No pixels, or a mode that no file holds: refused with the way out."""
    with pytest.raises(TypeError, match="can't be sent"):
        dumps([image], encoder())


def test_what_isnt_json_is_refused_with_the_way_out() -> None:
    """Bytes, paths and files are to be wrapped; anything else is named."""
    with io.BytesIO() as file:
        for value in (b"\x89PNG", Path("cat.jpg"), bytearray(1), file):
            with pytest.raises(errors.NotSerialisable, match=r"pipemill\.Image\.of"):
                encode_arguments([value], {}, encoder())
    with pytest.raises(errors.NotSerialisable, match="object"):
        encode_arguments("a", {"x": object()}, encoder())


Pair = namedtuple("Pair", "left right")  # noqa: PYI024  # a bare one is what is meant


@dataclass
class Point:
    """A dataclass of a caller's own."""

    x: float
    at: Any


def test_tuples_are_lists_and_dataclasses_objects() -> None:
    """Named tuples become lists; dataclasses stay objects, as they were before there was a hook."""
    array = np.arange(2)
    back = there_and_back({"pair": Pair(1, (2, 3)), "point": Point(1.5, array)})
    assert back["pair"] == [1, [2, 3]]
    assert back["point"]["x"] == 1.5
    assert same(back["point"]["at"], array)


# Decoding


def test_what_holds_no_media_stays_the_same_object() -> None:
    """Plain answers are neither copied nor changed."""
    value = {"a": [1, {"b": "x"}], "c": None}
    assert decode(value) is value
    assert value == {"a": [1, {"b": "x"}], "c": None}
    plain: list[Any] = ["text", 1.5, None, [], {}]
    assert all(decode(each) is each for each in plain)


FORM = {"$array": b64encode(bytes(8)).decode(), "dtype": "float32", "shape": [2]}


@pytest.mark.parametrize(
    "data",
    [
        {**FORM, "more": 1},
        {"$array": FORM["$array"]},
        {**FORM, "dtype": "object"},
        {**FORM, "dtype": ["float32"]},
        {**FORM, "shape": 2},
        {**FORM, "shape": [-2]},
        {**FORM, "shape": [2.0]},
        {**FORM, "shape": [True, 2]},
        {**FORM, "shape": [3]},
        {**FORM, "shape": [0, 2**62, 2**62]},
        {**FORM, "shape": "ab"},
        {**FORM, "$array": "not base64!"},
        {**FORM, "$array": "ä"},
        {**FORM, "$array": {"ref": "redis:a"}},
        {**FORM, "dtype": "bool", "shape": [1], "$array": b64encode(b"\x02").decode()},
        {"$image": 5},
        {"$image": "half a word"},
        {"$image": {"url": "https://example.org/cat.png"}},
        {"$image": {"ref": 5}},
        {"$image": FORM},
        {"$audio": FORM},
        {"$audio": FORM, "sampling_rate": "16000"},
        {"$audio": FORM, "sampling_rate": -1},
        {"$audio": "UklGRg==", "sampling_rate": 16000},
        {"$image": "", "$audio": ""},
        {"$video": None},
        {"$other": "x"},
    ],
)
def test_what_isnt_exactly_a_form_is_data(data: dict[str, Any]) -> None:
    """A dict that only looks like media stays as it is, at any depth."""
    import copy  # noqa: PLC0415  # only here

    deep = decode({"a": [copy.deepcopy(data)]})
    outer = deep["a"][0]
    assert outer.keys() == data.keys()
    if FORM not in data.values():  # an inner array is one, whatever surrounds it
        assert outer == data


def test_media_without_an_object_of_their_own_are_ours() -> None:
    """Sounds, videos and images of other kinds come as what a client would send."""
    samples, frames = np.zeros(3, "float32"), np.zeros((1, 2, 2, 3), "uint8")
    sent = [
        Image(b"\xff\xd8\xff"),
        Audio(b"RIFF"),
        Audio.of(samples, sampling_rate=8000),
        Video(b"ftyp"),
        Video.of(frames),
    ]
    back = there_and_back(sent)
    assert back == sent
    assert same(back[2].data.numpy(), samples)


def test_deep_answers_are_decoded() -> None:
    """Depth costs no recursion."""
    value: Any = dict(FORM)
    for _ in range(5000):
        value = [value]
    for _ in range(5000):
        value = decode(value)[0] if isinstance(value[0], dict) else value[0]
        if not isinstance(value, list):
            break
    assert same(value, np.zeros(2, "float32"))


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n",
        b"\x89PNG\r\n\x1a\n" + bytes(50),
        write_image(PIL.Image.new("RGB", (50, 50)))[:90],
        write_image(PIL.Image.new("F", (50, 50)))[:-9],
    ],
)
def test_a_broken_image_is_told(data: bytes) -> None:
    """A file of the right kind that can't be read is an error, which says how to get it as it is."""
    with pytest.raises(errors.MediaUnreadable, match="decode=False") as raised:
        decode([{"$image": b64encode(data).decode()}])
    assert "object at" not in str(raised.value)


def test_an_image_of_too_many_pixels_isnt_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's limit holds: a small file can't fill the memory."""
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 10)
    form = encoder()(PIL.Image.new("L", (100, 100)))
    with pytest.raises(errors.MediaUnreadable, match="decompression bomb"):
        decode([form])


# References


def test_large_contents_are_kept_elsewhere() -> None:
    """What has more bytes than the bound goes by reference, whatever it is a part of; the rest stays."""
    kept: dict[str, bytes] = {}

    def keep(data: bytes) -> str:
        kept[reference := f"redis:{len(kept)}"] = data
        return reference

    hook = encoder(keep, above=10)
    value = [
        np.zeros(10, "uint8"),
        np.zeros(11, "uint8"),
        Image(bytes(12)),
        Audio(Array(bytes(16), "float64", (2,)), 8000),
    ]
    forms = orjson.loads(dumps(value, hook))
    assert [len(each) for each in kept.values()] == [11, 12, 16]
    assert isinstance(forms[0]["$array"], str)
    assert forms[1]["$array"] == {"ref": "redis:0"}
    back = decode(forms, kept.__getitem__)
    assert same(back[1], value[1])
    assert back[2:] == value[2:]


def test_a_reference_that_is_none_is_data() -> None:
    """What the store doesn't take for a reference stays as it is; what it raises otherwise is raised."""

    def none(_: str) -> bytes:
        raise ValueError("it is no reference")

    def gone(_: str) -> bytes:
        raise errors.BlobMissing("gone")

    form = {"$image": {"ref": "x"}}
    assert decode([form], none) == [form]
    with pytest.raises(errors.BlobMissing):
        decode([form], gone)
    with pytest.raises(errors.MediaUnreadable, match="reference"):
        decode([{**FORM, "$array": {"ref": "x"}}], lambda _: b"123")


def test_what_the_store_raises_is_raised_as_it_is() -> None:
    """A broker that is away isn't taken for inputs that are no JSON."""

    def away(_: bytes) -> str:
        raise errors.BrokerUnavailable("away")

    with pytest.raises(errors.BrokerUnavailable):
        encode_arguments(np.zeros(100), {}, encoder(away, above=0))


# Documents


def test_nan_and_media_share_an_answer() -> None:
    """An answer with NaN takes another way to JSON, and loses no media on it."""
    answer = {"score": math.nan, "low": np.float32("-inf"), "none": None, "map": np.zeros(2), "pair": Pair(1, 2)}
    result = decode_result("a", encode_success("a", answer, default=encoder()))
    assert result is not None
    assert result.has_media
    value = decode(result.value)
    assert math.isnan(value["score"])
    assert (value["low"], value["none"], value["pair"]) == (-math.inf, None, [1, 2])
    assert same(value["map"], np.zeros(2))


def test_nan_of_a_dataclass_isnt_lost() -> None:
    """It is NaN in an answer and refused among inputs, as anywhere else."""
    result = decode_result("a", encode_success("a", [Point(math.nan, None)], default=encoder()))
    assert result is not None
    assert math.isnan(result.value[0]["x"])
    with pytest.raises(errors.NotSerialisable, match="NaN"):
        encode_arguments(Point(1.5, [math.inf]), {}, encoder())


def test_nan_of_numpy_is_no_input() -> None:
    """A NaN is refused whichever library it is from; in an array it travels."""
    with pytest.raises(errors.NotSerialisable, match="NaN"):
        encode_arguments([np.float32("nan")], {}, encoder())
    assert decode_arguments(encode_arguments(np.array(math.nan), {}, encoder()))[0]["shape"] == []


def test_documents_without_media_say_so() -> None:
    """Clients needn't look through a plain answer."""
    plain = decode_result("a", encode_success("a", [{"label": "good", "score": 0.5}], default=encoder()))
    assert plain is not None
    assert not plain.has_media


# Shared with workers


@pytest.mark.parametrize(
    ("dtype", "shape", "told"),
    [
        ("float31", [1], "dtype"),
        (None, [1], "dtype"),
        ("float32", None, "shape"),
        ("float32", [1] * 9, "shape"),
        ("float32", [2**41, 0], "shape"),
        ("float32", [2], "8 bytes, and there are 4"),
        ("float32", [], "0"),
    ],
)
def test_read_array_says_what_is_wrong(dtype: Any, shape: Any, told: str) -> None:
    """Bytes, dtype and shape must fit, and bounds hold before anything is built."""
    with pytest.raises(ValueError, match=told):
        read_array(bytes(4) if shape != [] else b"", dtype, shape)


def test_nothing_heavy_is_loaded_for_what_needs_it_not() -> None:
    """Encoding and decoding plain values and files loads neither NumPy nor Pillow."""
    script = (
        "import sys, orjson; from pipemill.codec import Image, decode, encoder\n"
        "form = orjson.loads(orjson.dumps([1, Image(b'x')], encoder(), orjson.OPT_PASSTHROUGH_DATACLASS))\n"
        "assert decode(form) == [1, Image(b'x')]\n"
        "print(*{'numpy', 'PIL', 'torch', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


@pytest.mark.parametrize(("library", "form"), [("numpy", FORM), ("PIL.Image", encoder()(PIL.Image.new("L", (1, 1))))])
def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, library: str, form: Any) -> None:
    """Who lacks NumPy or Pillow is told what to install, and how to do without."""
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(errors.MissingExtra, match=r"pipemill\[media\].*decode=False"):
        decode([dict(form)])
