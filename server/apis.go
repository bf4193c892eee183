package server

// apis lists everything that is served, in the order of the keys. ApiVersions
// answers with this list.
func apis() []*api {
	return []*api{
		&apiVersions,
	}
}
