"""Images, sounds, videos and arrays, to put among a job's inputs.

::

    client.run("photos", Image.of("cat.jpg"))
    client.run("calls", Audio.of(samples, sampling_rate=16_000))
"""

from pipemill.codec import Array, Audio, Image, Remote, Video

__all__ = ["Array", "Audio", "Image", "Remote", "Video"]
