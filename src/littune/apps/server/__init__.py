"""``littune serve``: a run, and a store to search, behind HTTP.

A request passes through ``http/``: who may ask (``security``), how much and how long (``gate``), what is counted
(``metrics``), how a body is read (``bodies``). What is left is handed to ``engine``, whose one thread runs the towers
on what came in together (``batching``), and which keeps the classifiers of label sets (``classifiers``).
"""
