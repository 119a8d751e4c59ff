import go2hooks as go2hooks  # first: it decides which build all later imports find
