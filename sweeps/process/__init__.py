"""The process of a command.

signals     how signals are received, and how the process ends
stopping    stopping a sweep before its end
resuming    the command that continues a sweep
phases      showing what is done before the trials train
summary     how far a sweep is, for people and as JSON
"""
