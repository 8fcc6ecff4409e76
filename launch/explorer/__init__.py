"""The local web page over an index: `influence explore`."""
