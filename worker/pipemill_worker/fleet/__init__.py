"""Several worker processes of one command: who gets which cores and GPUs, and who watches over them."""
