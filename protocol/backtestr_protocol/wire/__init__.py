"""Frames and signatures have two implementations each: in Python, which always works, and in C, which is quicker.

`pure_mac` and `pure_frames` are in Python, `_mac.c` and `_frames.c` are their twins. `compiled` and `zmq_frames` load
the latter, or keep the reason why they cannot be used. Only they and `codec.Signer` import from this folder.
"""
