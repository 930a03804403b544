"""A lock: one thread at a time builds modules with a library.

While building a module, our loaders, accelerate, diffusers and transformers replace functions of torch for the whole
process and restore them afterwards. If two threads overlapped, each would restore the other's replacement, and from
then on every new module of the process would have parameters without memory. So any code that calls `from_pretrained`,
builds a module for a load or adds an adapter holds this lock.
"""

import threading

BUILDING = threading.RLock()
