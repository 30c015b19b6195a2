"""`python -m flowcraft`."""

from flowcraft.cli.main import main

if __name__ == "__main__":
    main()
