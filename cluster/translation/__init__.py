"""Translation of folders of any size on a cluster: Ray Data's actors translate the images that the output folder lacks."""
