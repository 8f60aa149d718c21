"""The demo: two small trained models, sentences to send them, and the script that trains the models again."""
