"""`exitstream bundle`: list a store's versions, look at one, compare two, put, promote, roll back.

app          the commands and their options
commands     what they do
inspection   the facts about one bundle
difference   the facts about two
telling      facts as lines and tables
"""
