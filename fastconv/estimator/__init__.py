"""A convolutional network as a scikit-learn classifier."""
