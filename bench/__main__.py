"""`python -m bench` is the same as `bench`."""

from bench.cli.app import main

main()
