"""The code that people have, on fastkan: one package for each library that it was written for."""
