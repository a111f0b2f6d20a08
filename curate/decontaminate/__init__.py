"""Images of downstream test sets stay out of a build: copy detection, and how much of it the search would find.

sets        what a test set is: its images, their views' hashes, their content; kept in the work folder
views       how a test image may look in a build: flipped, cropped, bordered, with a line of text
plant       copies planted to measure the recall that stands beside every claim
embedding   embeddings of test images and planted copies, an option
search      which images of a build are near which test images: by hash, by embedding
step        the step of deciding that drops them
claims      what the build says about it: recall, counts, every pair with both pictures
"""
