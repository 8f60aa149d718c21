"""Examples, each a file to copy from; the tests run them."""
