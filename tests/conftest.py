"""One thread each: small tensors gain nothing from more, and results do not depend on how many cores a machine has."""

import signal

import torch

torch.set_num_threads(1)
# A shell starts what it puts in the background without Ctrl-C, and its children with it: some tests press it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
