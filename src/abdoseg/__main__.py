"""``python -m abdoseg``."""

from abdoseg.cli import main

if __name__ == "__main__":
    main()
