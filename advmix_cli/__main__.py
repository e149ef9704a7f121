"""`advmix` and `python -m advmix_cli`."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is still being imported ends as it does later."""
    try:
        from advmix_cli.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
