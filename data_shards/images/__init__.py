"""Images: finding files, reading them as a viewer shows them, encoding, augmenting and writing them."""
