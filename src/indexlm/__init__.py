"""indexlm: raw text in, a small bilingual language model and a character you talk to out."""

__version__ = "0.1.0"
