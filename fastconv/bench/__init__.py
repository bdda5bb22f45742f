"""The harness behind ``fastconv bench``: suites of layers, checking, measuring, reporting."""
