"""Reading counts from the files of detectors, one file of code for each format."""
