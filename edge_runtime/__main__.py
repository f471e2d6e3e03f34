"""``python -m edge_runtime`` is the `hybridge` command of this very environment."""

from edge_runtime.command import main

if __name__ == "__main__":
    main()
