"""Which precision to ship: choices of precisions, each measured once, in a workspace of its own."""
