"""One thread at a time builds modules with a library.

While they build a module, our loaders, accelerate, diffusers and transformers replace functions of torch for the whole process, and put the
old ones back afterwards. Two threads that overlap would put back each other's replacements: from then on every new module of the process
would have parameters without memory. So whoever calls `from_pretrained`, builds a module for a load or adds an adapter holds this lock.
"""

import threading

BUILDING = threading.RLock()
