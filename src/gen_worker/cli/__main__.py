"""`python -m gen_worker.cli` is cozyctl: for debuggers, which start modules, and for systems where cozyctl is not on the path."""

from gen_worker.cli.main import main

if __name__ == "__main__":
    main()
