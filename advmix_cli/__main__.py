"""`advmix` and `python -m advmix_cli`."""

import signal
import sys


def main() -> None:
    """Run the command line. Ctrl-C ends with 130 at any time; once the work is done it changes nothing more."""
    try:
        try:
            from advmix_cli.cli import main as run

            run()
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.exit(130)


if __name__ == "__main__":
    main()
