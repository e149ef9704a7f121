"""`advmix` and `python -m advmix_cli`."""

import signal
import sys


def main() -> None:
    """Run the command line. Ctrl-C ends with 130 at any time; once the work is done it changes nothing more."""
    try:
        from advmix_cli.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    main()
