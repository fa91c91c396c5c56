"""From a user's CSV file to a trained network, with the preparation of its columns."""
