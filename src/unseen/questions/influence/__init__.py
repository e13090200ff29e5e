"""What `unseen influence` asks, answers and keeps."""
