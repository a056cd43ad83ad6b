package main

// mostOnPage is how many things the API gives at a time.
const mostOnPage = 1000

// pages reads a list page by page until it has limit things of it, or all. next asks for at
// most so many after a cursor, which is empty for the first page.
func pages[T any](limit int64, next func(limit int64, cursor string) ([]T, *string, error)) ([]T, error) {
	found, cursor := []T{}, ""
	for int64(len(found)) < limit {
		items, more, err := next(min(limit-int64(len(found)), mostOnPage), cursor)
		if err != nil {
			return nil, err
		}
		found = append(found, items...)
		if more == nil {
			break
		}
		cursor = *more
	}
	return found, nil
}
