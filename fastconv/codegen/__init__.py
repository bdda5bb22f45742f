"""Vector instructions written as LLVM code from Python: the lowest level."""
