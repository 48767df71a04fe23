"""EC2 machines that boot, as far as their own software goes.

life        tells Weka of each machine, and boots those that a group launched
boot        runs a machine's user data as a process
metadata    the instance metadata service
tls         what the join URL's host answers with
commands    what the stand-ins for `aws`, `shutdown` and `weka` ask for
standins/   the commands that user data and join script call

A machine is told by the address that a request comes from, which is its own
loopback address: curl is told so in its `.curlrc`.
"""
