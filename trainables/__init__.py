"""What a trial is: its configuration and identity, corpus, training loop, Ray adapter."""
