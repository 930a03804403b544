"""Programs under test start with signals as from a terminal, however the suite itself was started. Import this for its effect.

A shell starts what runs in the background with SIGINT ignored, and nohup with SIGHUP ignored; a child would inherit that, and Ctrl-C would not end it.
A handler, unlike "ignored", is gone after exec.
"""

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda number, frame: None)
