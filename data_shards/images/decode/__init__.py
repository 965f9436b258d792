"""From a file to an image as a viewer shows it: opened, repaired, turned, in sRGB."""
