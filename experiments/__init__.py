"""What is built on the stages: runs over many images, result files, the evaluation."""
