"""Media of a job's inputs, within limits: images, sounds, videos and arrays in place of their JSON forms.

Nothing here opens a path, starts a program, or lets a file name another one. The libraries that decode are imported
when there is something to decode.
"""

from pipemill_worker.media.clips import Clip
from pipemill_worker.media.contents import Fetch, References
from pipemill_worker.media.decoder import MediaDecoder
from pipemill_worker.media.limits import MediaLimits
from pipemill_worker.media.sampling import preprocess_video
from pipemill_worker.media.sounds import Sound

__all__ = ["Clip", "Fetch", "MediaDecoder", "MediaLimits", "References", "Sound", "preprocess_video"]
