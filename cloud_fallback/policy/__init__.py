"""The rule that says whether the cloud is asked."""
