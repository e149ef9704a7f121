"""One module a command: settings and store in, a result out."""
