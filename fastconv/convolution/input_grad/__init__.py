"""The input gradient as forward convolutions."""
