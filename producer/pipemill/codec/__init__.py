"""Media on the wire: images, sounds, videos and arrays as JSON objects, and back. Imports errors and protocol only.

NumPy, Pillow and torch are never imported before something is at hand that only they can hold.
"""

from pipemill.codec.arrays import read_array, write_array
from pipemill.codec.decoding import decode
from pipemill.codec.encoding import encoder
from pipemill.codec.images import read_image, write_image
from pipemill.codec.media import Array, Audio, Image, Media, Remote, Video

__all__ = [
    "Array",
    "Audio",
    "Image",
    "Media",
    "Remote",
    "Video",
    "decode",
    "encoder",
    "read_array",
    "read_image",
    "write_array",
    "write_image",
]
