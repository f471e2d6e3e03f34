"""The endpoint that answers: models by name and version behind the Open Inference Protocol."""
