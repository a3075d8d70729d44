"""Machine translation: parallel text in, BLEU out."""
