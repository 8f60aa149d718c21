"""``pipemill worker`` for which every host is one server on this machine; the arguments are the command's.

``URL_PORT`` is the server's port.
"""

from __future__ import annotations

import os
from functools import partial

from pipemill.cli import main
from pipemill_worker.media import fetch

#: An address that may be fetched from.
PUBLIC = "93.184.215.14"


if __name__ == "__main__":
    number = int(os.environ["URL_PORT"])
    network = fetch.Network(
        resolve=lambda _host, _port: [PUBLIC],
        dial=lambda _address, _port, seconds: fetch.dial("127.0.0.1", number, seconds),
    )
    fetch.UrlFetcher = partial(fetch.UrlFetcher, network=network)  # type: ignore[misc,assignment]  # that is the purpose
    main()
