"""What is behind ``fastconv tune``: which algorithm is the fastest on this computer."""
