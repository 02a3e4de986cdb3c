"""`python -m xlite_search VERB`: the command line is in `cli`."""

from xlite_search.cli import main

if __name__ == "__main__":
    main()
