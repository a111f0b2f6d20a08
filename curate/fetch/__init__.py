"""`curate fetch`: native URLs into a pool of images, by img2dataset with a safe download in place of its own."""
