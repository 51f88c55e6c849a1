"""One module per version; none is changed once it has been released."""
