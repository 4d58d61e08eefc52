# host.py LIBRARY ENTRY ARGS...: runs a program of ClickHouse that is part of a Python module's library. Only Python has the
# symbols that such a library needs to be loaded.
import ctypes
import sys

library, entry, *args = sys.argv[1:]
argv = (ctypes.c_char_p * (len(args) + 1))(*map(str.encode, args), None)
sys.exit(getattr(ctypes.CDLL(library), entry)(len(args), argv))
